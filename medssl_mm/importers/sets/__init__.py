"""What is known of data sets: names of files, classes, splits; one a file."""
