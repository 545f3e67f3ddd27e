//! The client side: the channel and the layers of its stack, one per directory.
