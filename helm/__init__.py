"""What of the chart is made from the program, so that the two cannot differ."""
