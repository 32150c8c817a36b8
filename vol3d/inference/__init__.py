"""Full-volume inference: windows streamed through a network, fused slab by slab, restored to the scan's own grid."""
