"""Teachers: functions `Batch -> Outputs`, which are never part of the trained module."""
