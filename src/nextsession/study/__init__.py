"""The study of next-session prediction: its tables and plots, each made by one command on any log.

    nextsession study overall --data ebnerd

| module       | what it knows                                                        |
|--------------|----------------------------------------------------------------------|
| `plans`      | which models each table compares, as one small table                 |
| `estimates`  | means over seeds, and intervals that draw people and seeds again     |
| `summary`    | what came of a plan, as JSON                                         |
| `law`        | the law of scaling, its fit and how far it can be trusted            |
| `scaling`    | the grid of sizes, and an extrapolation written before it is checked |
| `run`        | a plan carried out by `nextsession.comparison`                       |
| `tables`, `pictures`, `page` | how it is shown                                      |
"""
