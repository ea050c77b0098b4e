"""The fault matrix: whole workers and servers, broken on purpose; `make faults`."""
