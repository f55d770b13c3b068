"""Which axes of parameters belong together: a program walked with a label for every axis of every value."""
