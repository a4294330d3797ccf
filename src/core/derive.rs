//! Derived topics: those that show a view of another topic's machine, on the core that owns both.
//!
//! A machine says which of its views have changed ([`Outcome::changed`]). At the end of the turn
//! each view that somebody subscribes to gives one event, with what it shows then, to its topic.
//! So a derived topic costs at most one event a turn, and nothing while nobody subscribes.
//!
//! Whoever subscribes, or is brought up to date, gets what the view shows at that moment: the
//! event that is due is made before the answer.

use super::Core;
use super::owner::Asked;
use crate::machines::{Outcome, bit};
use crate::topic::Source;

impl Core {
    /// Takes note of what a command did to the views of the topic at `index`, and hands out what
    /// cannot wait for the end of the turn.
    pub(super) fn note_views(&mut self, index: usize, outcome: &Outcome) {
        for (view, payload) in outcome.view_events() {
            self.give_to_view(index, view, payload);
        }
        let views = &mut self.topics.get_mut(index).views;
        if views.unseen == 0 && outcome.unseen() != 0 {
            self.unseen.push(index);
        }
        views.unseen = outcome.unseen();
    }

    /// Gives every changed view's newest content to its topics.
    pub(super) fn show_views(&mut self) {
        let mut sources = std::mem::take(&mut self.unseen);
        for index in sources.drain(..) {
            let unseen = std::mem::take(&mut self.topics.get_mut(index).views.unseen);
            for place in 0..self.topics.get(index).views.topics.len() {
                let (view, topic) = self.topics.get(index).views.topics[place];
                if unseen & bit(view) != 0 {
                    self.show(topic);
                }
            }
        }
        self.unseen = sources;
    }

    /// Makes the event that is due in a topic, if it is a derived one.
    pub(super) fn refresh(&mut self, index: usize) {
        let topic = self.topics.get(index);
        let Some(source) = topic.source else {
            return;
        };
        let from = self.topics.get(source.index);
        if !topic.is_watched() {
            // Nobody has counted what happened meanwhile.
            if from.seq() != source.seq {
                self.show(index);
            }
        } else if from.views.unseen & bit(source.view) != 0 {
            self.show_views();
        }
    }

    /// Keeps count of which views somebody subscribes to; to be called when that may have changed
    /// for the topic at `index`.
    pub(super) fn count_watched(&mut self, index: usize) {
        let Some(source) = self.topics.get(index).source else {
            return;
        };
        let topics = &self.topics.get(source.index).views.topics;
        let watched = |(view, topic): &(u8, usize)| match self.topics.get(*topic).is_watched() {
            true => bit(*view),
            false => 0,
        };
        let watched = topics.iter().map(watched).fold(0, |all, view| all | view);
        let views = &mut self.topics.get_mut(source.index).views;
        views.watched = watched;
        views.unseen &= watched;
    }

    /// Makes an event of what a derived topic's view shows now, if it shows anything.
    fn show(&mut self, index: usize) {
        let Some(source) = self.topics.get(index).source else {
            return;
        };
        let mut payload = std::mem::take(&mut self.shown);
        payload.clear();
        let from = self.topics.get(source.index);
        let seq = from.seq();
        if from.view(source.view, &mut self.scratch, &mut payload) {
            self.give(index, &payload);
        }
        self.topics.get_mut(index).source = Some(Source { seq, ..source });
        self.shown = payload;
    }

    fn give_to_view(&mut self, source: usize, view: u8, payload: &[u8]) {
        for place in 0..self.topics.get(source).views.topics.len() {
            let (its, topic) = self.topics.get(source).views.topics[place];
            if its == view && self.topics.get(topic).is_watched() {
                self.give(topic, payload);
            }
        }
    }

    fn give(&mut self, index: usize, payload: &[u8]) {
        let mut outcome = std::mem::take(&mut self.derived);
        let applied = self.apply(index, Asked::internal(payload), &mut outcome);
        self.derived = outcome;
        if let Err(refusal) = applied {
            let topic = &*self.topics.get(index).name;
            tracing::error!(topic, %refusal, "a derived topic refused what it is to show");
        }
    }
}
