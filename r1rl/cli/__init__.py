"""The command line: commands, help, and how processes are started."""
