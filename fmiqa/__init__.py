"""Image quality from CNN feature maps."""
