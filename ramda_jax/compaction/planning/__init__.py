"""What can be deleted: indices that nothing reads, the plan made from them, and trees sliced by a plan."""
