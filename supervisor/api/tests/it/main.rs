//! The services against a scripted launcher on the real socket protocol.
