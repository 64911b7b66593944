"""Modules beside the tests, which hold no examples."""

collect_ignore = ["device.py", "functions.py", "log.py", "operations.py", "plugin.py"]
