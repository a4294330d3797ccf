//! What text protocols have in common: lines that end in CR LF, and decimal numbers.

use super::Nonsense;

/// The longest line that makes sense; NATS's INFO is the longest in practice, with some 500 bytes.
const LONGEST: usize = 64 << 10;

/// The first line of `bytes` without its CR LF, and its length with it; `None` when it is not
/// whole yet.
///
/// # Errors
/// [`Nonsense`] when no line is that long, or it ends in LF alone.
#[inline]
pub(super) fn first_line(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Nonsense> {
    match bytes.iter().position(|&byte| byte == b'\n') {
        Some(at) => match bytes[..at].split_last() {
            Some((b'\r', line)) => Ok(Some((line, at + 1))),
            _ => Err(nonsense("a line that ends in LF alone", &bytes[..at])),
        },
        None if bytes.len() > LONGEST => Err(nonsense("a line without end", bytes)),
        None => Ok(None),
    }
}

/// A decimal number without sign, of 1 to 18 digits.
#[inline]
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| number * 10 + u64::from(digit))
    })
}

/// Appends `number` in decimal.
pub(super) fn push_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The error for `bytes`, of which the first are shown.
#[cold]
pub(super) fn nonsense(what: &str, bytes: &[u8]) -> Nonsense {
    let shown = &bytes[..bytes.len().min(80)];
    Nonsense(format!("{what}: {:?}", String::from_utf8_lossy(shown)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_their_digits() {
        for number in [0, 7, 10, 65_535, 123_456_789_012_345_678] {
            let mut out = Vec::new();
            push_decimal(&mut out, number);
            assert_eq!(decimal(&out), Some(number));
        }
        for bad in ["", "-1", "1 ", "1234567890123456789"] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_line_is_read_once_it_is_whole() {
        assert_eq!(first_line(b"PING\r"), Ok(None));
        assert_eq!(first_line(b"PING\r\nPO"), Ok(Some((&b"PING"[..], 6))));
        assert!(first_line(b"PING\n").is_err());
        assert!(first_line(&[b'x'; LONGEST + 1]).is_err());
    }
}
