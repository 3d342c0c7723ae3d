//! The caller's place in a trace, as W3C's `traceparent` tells it: `00-TRACE-SPAN-FLAGS`, in lower-case hexadecimal.
//!
//! A header that is not valid is as good as none: that is the specification's rule, and no call fails because of it.

/// A trace, and the span in it that called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace; never zero.
    pub trace: [u8; 16],
    /// The calling span; never zero.
    pub span: [u8; 8],
    /// Whether the caller records it.
    pub sampled: bool,
}

/// Lower-case hexadecimal digits of exactly that many bytes.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if text.len() != N * 2 {
        return None;
    }
    let mut out = [0; N];
    for (to, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *to = digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?;
    }
    Some(out)
}

impl TraceParent {
    /// Reads a header's value; none: it is not valid.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let [version] = bytes::<1>(parts.next()?)?;
        let trace = bytes(parts.next()?)?;
        let span = bytes(parts.next()?)?;
        let [flags] = bytes::<1>(parts.next()?)?;
        // Later versions may have more parts, this one has not.
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }

    /// The trace as 32 digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.trace.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_s_example_is_read() {
        let read = TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        assert_eq!(read.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(read.span, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
        assert!(read.sampled);
        let later =
            TraceParent::parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more").unwrap();
        assert!(!later.sampled);
    }

    #[test]
    fn what_is_not_valid_is_none() {
        for text in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319é-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-011",
        ] {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
    }
}
