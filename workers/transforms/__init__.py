"""Steps that turn a base's weights into a candidate's; their fixed order is in `workers.candidate`."""
