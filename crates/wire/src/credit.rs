//! Byte credit for one direction of one channel.
//!
//! Limits are absolute totals since the channel was opened, like QUIC's MAX_STREAM_DATA (RFC 9000,
//! section 4.1): a repeated or late grant changes nothing.

use crate::error::WireError;
use crate::limits::{FRAME_OVERHEAD, MAX_DATA};

/// Returns the credit that a data frame with a payload of `len` bytes costs.
pub const fn cost(len: usize) -> u64 {
    len as u64 + FRAME_OVERHEAD
}

/// The sender's credit: what it may still send.
#[derive(Debug, Clone)]
pub struct SendCredit {
    used: u64,
    limit: u64,
    window: u64,
}

impl SendCredit {
    /// Creates the credit with an initial grant.
    pub const fn new(limit: u64) -> Self {
        SendCredit { used: 0, limit, window: limit }
    }

    /// Returns the longest payload that the next frame may have; 0 when no frame fits.
    pub fn room(&self) -> usize {
        let free = self.limit.saturating_sub(self.used).saturating_sub(FRAME_OVERHEAD);
        usize::try_from(free).map_or(MAX_DATA, |n| n.min(MAX_DATA))
    }

    /// Deducts the cost of a frame. Returns false and deducts nothing when it does not fit.
    #[must_use]
    pub fn spend(&mut self, len: usize) -> bool {
        match self.used.checked_add(cost(len)) {
            Some(used) if used <= self.limit => {
                self.used = used;
                true
            }
            _ => false,
        }
    }

    /// Applies a grant of an untrusted peer. Fails when the limit decreases or exceeds what was
    /// sent plus the window: a peer that grants and does not read would fill memory here.
    pub fn grant(&mut self, limit: u64) -> Result<(), WireError> {
        let most = self.used.saturating_add(self.window);
        if limit < self.limit || limit > most {
            return Err(WireError::BadCredit { limit, least: self.limit, most });
        }
        self.limit = limit;
        Ok(())
    }

    /// Applies a grant of a trusted peer. Ignores an older one.
    pub fn raise(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }
}

/// The receiver's credit: what it granted and what it released.
#[derive(Debug, Clone)]
pub struct ReceiveCredit {
    received: u64,
    released: u64,
    granted: u64,
    window: u64,
}

impl ReceiveCredit {
    /// Creates the credit with a window that the sender knows.
    pub const fn new(window: u64) -> Self {
        ReceiveCredit { received: 0, released: 0, granted: window, window }
    }

    /// Records a received frame. Fails when the sender had no credit for it.
    pub fn receive(&mut self, len: usize) -> Result<(), WireError> {
        let sent = self.received.saturating_add(cost(len));
        if sent > self.granted {
            return Err(WireError::Overrun { sent, granted: self.granted });
        }
        self.received = sent;
        Ok(())
    }

    /// Releases the cost of consumed frames. Returns the new limit once a quarter of the window is
    /// free: the caller then sends it to the peer.
    pub fn release(&mut self, cost: u64) -> Option<u64> {
        self.released = self.released.saturating_add(cost).min(self.received);
        let limit = self.released.saturating_add(self.window);
        (limit.saturating_sub(self.granted) >= self.window / 4).then(|| {
            self.granted = limit;
            limit
        })
    }

    /// Returns the total received.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Returns what was received and not released: the memory that this channel holds.
    pub const fn held(&self) -> u64 {
        self.received - self.released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sender_never_exceeds_its_grant() {
        let mut credit = SendCredit::new(cost(10));
        assert_eq!(credit.room(), 10);
        assert!(!credit.spend(11));
        assert!(credit.spend(10));
        assert_eq!(credit.room(), 0);
        credit.raise(cost(10) + cost(5));
        credit.raise(3);
        assert_eq!(credit.room(), 5);
    }

    #[test]
    fn j4_credit_beyond_the_window_is_refused() {
        let mut credit = SendCredit::new(4000);
        assert!(credit.spend(136));
        assert!(credit.grant(4201).is_err() && credit.grant(u64::MAX).is_err());
        assert!(credit.grant(3999).is_err());
        assert_eq!(credit.grant(4200), Ok(()));
        assert_eq!(credit.room(), 4200 - 264);
    }

    #[test]
    fn room_is_at_most_one_frame() {
        assert_eq!(SendCredit::new(u64::MAX).room(), MAX_DATA);
        assert_eq!(SendCredit::new(FRAME_OVERHEAD).room(), 0);
    }

    #[test]
    fn receiver_detects_an_overrun() {
        let mut credit = ReceiveCredit::new(cost(10));
        assert!(credit.receive(11).is_err());
        assert!(credit.receive(10).is_ok());
        assert!(credit.receive(0).is_err());
    }

    #[test]
    fn grants_come_in_quarters_and_restore_the_window() {
        let mut credit = ReceiveCredit::new(4000);
        for _ in 0..10 {
            credit.receive(100).unwrap();
        }
        assert_eq!(credit.release(999), None);
        assert_eq!(credit.release(1), Some(5000));
        assert_eq!(credit.held(), 640);
    }
}
