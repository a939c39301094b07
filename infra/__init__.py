"""Starting, watching and stopping the services of a run on one machine."""
