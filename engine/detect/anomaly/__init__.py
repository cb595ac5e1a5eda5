"""Unknown behaviour: windows of hosts that are far from what is usual here. Low severity, within a budget."""
