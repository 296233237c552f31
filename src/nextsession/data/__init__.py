"""From raw events to a `SessionLog`: reading, sessions, filters, the prepared form, data sets, simulators."""
