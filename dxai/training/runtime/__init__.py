"""Running a training: the supervisor and Ray."""
