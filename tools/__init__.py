"""Programs that write documents from the code and from other files, most of them started by `make docs`."""
