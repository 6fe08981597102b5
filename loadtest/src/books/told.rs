//! When members were told that their room's numbering began anew, and at which node. Kept by client threads, joined by the
//! main thread when the run is over.

/// Of one numbering: what is told later than this after the last time is a return to it, microseconds.
const APART_US: u64 = 5_000_000;
/// Tellings remembered; what is beyond them is only counted.
const TOLD_MAX: usize = 4096;

/// One numbering, told to members of one room at one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    /// When the first of them heard it, microseconds of the run's clock.
    pub from_us: u64,
    /// When the last of them did.
    pub to_us: u64,
    /// The room's index in the plan.
    pub room: u32,
    /// The node's index in the plan.
    pub node: u16,
    /// The numbering.
    pub epoch: u64,
    /// How many heard it.
    pub members: u64,
}

/// All that was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tellings {
    told: Vec<Told>,
    /// To how many members in all.
    pub members: u64,
}

impl Tellings {
    /// A member heard of a numbering.
    pub fn heard(&mut self, room: u32, node: u16, epoch: u64, now_us: u64) {
        self.add(Told {
            from_us: now_us,
            to_us: now_us,
            room,
            node,
            epoch,
            members: 1,
        });
    }

    /// Adds what another thread wrote down.
    pub fn gather(&mut self, more: Tellings) {
        let listed: u64 = more.told.iter().map(|told| told.members).sum();
        self.members += more.members - listed;
        more.told.into_iter().for_each(|told| self.add(told));
    }

    /// In the order in which they began.
    pub fn all(mut self) -> Vec<Told> {
        self.told.sort_unstable();
        self.told
    }

    fn add(&mut self, more: Told) {
        self.members += more.members;
        let same = |told: &Told| {
            (told.room, told.node, told.epoch) == (more.room, more.node, more.epoch)
                && more.from_us <= told.to_us.saturating_add(APART_US)
                && told.from_us <= more.to_us.saturating_add(APART_US)
        };
        match self.told.iter().rposition(same) {
            Some(at) => {
                let told = &mut self.told[at];
                told.from_us = told.from_us.min(more.from_us);
                told.to_us = told.to_us.max(more.to_us);
                told.members += more.members;
            }
            None if self.told.len() < TOLD_MAX => self.told.push(more),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_one_node_are_told_once_and_a_return_is_another_time() {
        let (mut one, mut other) = (Tellings::default(), Tellings::default());
        one.heard(0, 1, 9, 1_000_000);
        one.heard(0, 1, 9, 1_200_000);
        one.heard(0, 2, 9, 1_300_000);
        other.heard(0, 1, 9, 900_000);
        other.heard(0, 1, 9, 70_000_000);
        one.gather(other);
        assert_eq!(one.members, 5);
        let all = one.all();
        let spans: Vec<_> = all
            .iter()
            .map(|told| (told.node, told.from_us, told.to_us, told.members))
            .collect();
        let expected = [
            (1, 900_000, 1_200_000, 3),
            (2, 1_300_000, 1_300_000, 1),
            (1, 70_000_000, 70_000_000, 1),
        ];
        assert_eq!(spans, expected);
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let mut tellings = Tellings::default();
        for epoch in 0..TOLD_MAX as u64 + 10 {
            tellings.heard(0, 0, epoch, 1);
        }
        let mut all = Tellings::default();
        all.gather(tellings);
        assert_eq!(all.members, TOLD_MAX as u64 + 10);
        assert_eq!(all.all().len(), TOLD_MAX);
    }
}
