"""Progress shown while a command runs, and output streams that survive a full disk or a closed pipe."""
