//! Bytes read as choices.

/// What is left of an input. Where it ends, zeros follow: a shorter input is a simpler one.
#[derive(Debug, Clone)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u8) -> u8 {
        self.byte() % limit
    }

    pub fn is_odd(&mut self) -> bool {
        self.below(2) == 1
    }

    /// Small ones mostly; those at which things overflow, too.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=219 => u64::from(small),
            220..=235 => u64::from(self.fixed::<4, u32>(u32::from_le_bytes)),
            236..=247 => self.fixed(u64::from_le_bytes),
            near_the_end => u64::MAX - u64::from(255 - near_the_end),
        }
    }

    /// `count` bytes, or as many as there are.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A piece that says itself how long it is.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = match self.byte() {
            short @ 0..=247 => usize::from(short),
            long => usize::from(long - 247) * 256,
        };
        self.bytes(length)
    }

    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    fn fixed<const N: usize, T>(&mut self, read: impl Fn([u8; N]) -> T) -> T {
        let mut bytes = [0; N];
        let taken = self.bytes(N);
        bytes[..taken.len()].copy_from_slice(taken);
        read(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_read_from_the_front_and_ends_in_zeros() {
        let mut input = Input::new(&[7, 2, b'a', b'b', 220, 1, 0, 0, 0, 255, 250, 1]);
        assert_eq!((input.below(4), input.piece()), (3, &b"ab"[..]));
        assert_eq!((input.number(), input.number()), (1, u64::MAX));
        assert_eq!((input.piece(), input.is_empty()), (&[1][..], true));
        assert_eq!((input.byte(), input.number(), input.rest()), (0, 0, &[][..]));
    }
}
