"""Starting, watching and stopping what a run needs on one machine."""
