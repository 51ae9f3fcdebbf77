"""What ours is measured against: each is what a capable engineer would write with the same libraries."""
