//! The links between clients and the broker: they delay, lose, repeat, reorder, damage, and carry nothing for a while.

use std::time::Duration;

use bytes::BytesMut;

use crate::{
    clock::Moment,
    random::Random,
    tally::{Fault, Tally},
};

/// How good a link is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quality {
    /// Least time from end to end.
    pub(crate) latency: Duration,
    /// Most time on top of it; reorders datagrams that follow each other closely.
    pub(crate) jitter: Duration,
    /// Lost, of a thousand.
    pub(crate) loss: u32,
    /// Repeated, of a thousand.
    pub(crate) repeat: u32,
    /// Damaged, of a thousand.
    pub(crate) damage: u32,
}

impl Quality {
    /// A link that keeps what it is given, in order.
    pub(crate) const PERFECT: Self =
        Self { latency: Duration::from_millis(1), jitter: Duration::ZERO, loss: 0, repeat: 0, damage: 0 };

    /// Any link that people use.
    pub(crate) fn any(random: &mut Random) -> Self {
        let ms =
            |random: &mut Random, min, max| random.duration(Duration::from_millis(min), Duration::from_millis(max));
        let (latency, jitter) = match random.below(4) {
            0 => (ms(random, 0, 1), ms(random, 0, 1)),
            1 => (ms(random, 2, 20), ms(random, 0, 5)),
            2 => (ms(random, 20, 80), ms(random, 0, 30)),
            _ => (ms(random, 80, 200), ms(random, 0, 80)),
        };
        let loss = if random.per_mille(600) { random.below(20) } else { random.below(120) } as u32;
        Self { latency, jitter, loss, repeat: random.below(30) as u32, damage: random.below(15) as u32 }
    }
}

/// Direction of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the client.
    ToBroker,
    /// From the broker.
    ToClient,
}

/// One client's link.
#[derive(Debug)]
pub(crate) struct Link {
    /// How good it is now.
    pub(crate) quality: Quality,
    cut_until: Moment,
    latest: [Moment; 2],
}

impl Link {
    /// A link that works.
    pub(crate) fn new(quality: Quality) -> Self {
        Self { quality, cut_until: Moment::default(), latest: [Moment::default(); 2] }
    }

    /// Carries nothing until then.
    pub(crate) fn cut(&mut self, until: Moment) {
        self.cut_until = self.cut_until.max(until);
    }

    /// Ends any cut and becomes perfect.
    pub(crate) fn heal(&mut self) {
        self.cut_until = Moment::default();
        self.quality = Quality::PERFECT;
    }

    /// Decides what becomes of a datagram: when its copies arrive, if they do.
    pub(crate) fn carry(
        &mut self,
        now: Moment,
        way: Way,
        bytes: &mut BytesMut,
        random: &mut Random,
        tally: &mut Tally,
    ) -> [Option<Moment>; 2] {
        tally.datagrams += 1;
        if now < self.cut_until {
            return [None; 2];
        }
        if random.per_mille(self.quality.loss) {
            tally.count(Fault::Loss);
            return [None; 2];
        }
        if !bytes.is_empty() && random.per_mille(self.quality.damage) {
            tally.count(Fault::Damage);
            let at = random.index(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        let first = self.arrival(now, way, random, tally);
        let second = random.per_mille(self.quality.repeat).then(|| {
            tally.count(Fault::Repeat);
            self.arrival(now, way, random, tally)
        });
        [Some(first), second]
    }

    fn arrival(&mut self, now: Moment, way: Way, random: &mut Random, tally: &mut Tally) -> Moment {
        let at = now + self.quality.latency + random.duration(Duration::ZERO, self.quality.jitter);
        let latest = &mut self.latest[way as usize];
        if at < *latest {
            tally.count(Fault::Reorder);
        }
        *latest = at.max(*latest);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carry(link: &mut Link, now: Moment, random: &mut Random, tally: &mut Tally) -> [Option<Moment>; 2] {
        link.carry(now, Way::ToBroker, &mut BytesMut::from(&[0; 9][..]), random, tally)
    }

    #[test]
    fn a_cut_link_carries_nothing_until_it_is_over() {
        let (mut random, mut tally) = (Random::new(1, "test"), Tally::default());
        let mut link = Link::new(Quality::PERFECT);
        link.cut(Moment(10));
        assert_eq!(carry(&mut link, Moment(9), &mut random, &mut tally), [None; 2]);
        assert_eq!(carry(&mut link, Moment(10), &mut random, &mut tally), [Some(Moment(1_000_010)), None]);
    }

    #[test]
    fn a_bad_link_does_everything_bad() {
        let (mut random, mut tally) = (Random::new(1, "test"), Tally::default());
        let jitter = Duration::from_millis(9);
        let mut link = Link::new(Quality { jitter, loss: 300, repeat: 300, damage: 300, ..Quality::PERFECT });
        for n in 0..200 {
            carry(&mut link, Moment(n), &mut random, &mut tally);
        }
        for fault in [Fault::Loss, Fault::Repeat, Fault::Reorder, Fault::Damage] {
            assert!(tally.of(fault) > 20, "{fault:?}");
        }
        assert_eq!(tally.datagrams, 200);
    }
}
