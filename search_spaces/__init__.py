"""What to try: networks, spaces and designs as data, and the samplers that propose them."""
