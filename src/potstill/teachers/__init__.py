"""Teachers: functions `Batch -> Outputs`; what is trained never contains one."""
