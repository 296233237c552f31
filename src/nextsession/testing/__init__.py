"""The public contract of models: what each must keep, as functions that any package can run.

```python no-run
from nextsession.testing import check

check(MyModel)
```
"""

from nextsession.testing.checks import Outcome, check, checks, outcomes
from nextsession.testing.subjects import Subject, subjects

__all__ = ["Outcome", "Subject", "check", "checks", "outcomes", "subjects"]
