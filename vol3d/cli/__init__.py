"""The ``vol3d`` command: one file per subcommand; torch and monai are imported only where a command needs them."""
