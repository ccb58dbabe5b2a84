"""What belongs to a release beside the program: what is in it, and under which licences."""
