//! aion-launcher.
fn main() {}
