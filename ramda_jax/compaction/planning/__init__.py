"""What can go: which indices nothing reads, the plan made from that, and trees sliced by a plan."""
