//! Answers to commands, and refusals of topic names.

use tickring::machines::candle_view;
use tickring_protocol::{ErrorCode, Reply, TopicName};

use crate::client::Around;
use crate::ensure;
use crate::model::{CANDLE, Done, Model, is_durable, is_kind};
use crate::shadow::{Asked, Shadow};

pub(super) fn reply(
    it: &Reply<'_>,
    session: u128,
    shadow: &mut Shadow,
    around: &mut Around<'_>,
) -> Result<(), String> {
    // Bytes that were spoiled may have given two commands one id; their outcomes tell them apart.
    let ok = it.code == ErrorCode::Ok as u16;
    let applied = &around.model.applied;
    let fits = |asked: &Asked| match asked {
        Asked::Command { command, .. } => applied.contains_key(command) == ok,
        Asked::LongCommand => !ok,
        _ => false,
    };
    let any = |asked: &Asked| matches!(asked, Asked::Command { .. } | Asked::LongCommand);
    let place = shadow
        .find(it.request_id, fits)
        .or_else(|| shadow.find(it.request_id, any));
    let Some(place) = place else {
        return Err("no COMMAND asked for it, or it was answered before".into());
    };
    let overloaded = it.code == ErrorCode::Overloaded as u16;
    // What finds no room is refused at once, while what was taken before may be on its way; and of
    // a command that was sent several times nobody can tell which of them is answered.
    let again = |asked: &Asked| matches!(asked, Asked::Command { command, .. } if around.model.repeated.contains_key(command));
    let again = again(&shadow.pending[place].what);
    let earlier = (!overloaded && !again)
        .then(|| first_of_topic(shadow, place, around.model))
        .flatten();
    ensure!(
        earlier.is_none(),
        "request {earlier:?} to the same topic was to be answered before"
    );
    let Asked::Command {
        command,
        quiet,
        name,
        topic_id,
        known_id,
    } = shadow.pending.remove(place).what
    else {
        ensure!(
            it.code == ErrorCode::NameTooLong as u16 && it.topic_id == 0,
            "the name is too long"
        );
        return Ok(());
    };
    let model = &mut *around.model;
    let Some(code) = ErrorCode::from_u16(it.code) else {
        return Err("its code is unknown".into());
    };
    if code == ErrorCode::Forgotten {
        around.coverage.forgotten += 1;
        let replies = around.plan.replies();
        let most = replies.per_session;
        let crowded = model.sessions.get(&session).is_some_and(|n| *n > most);
        let full = model.answer_bytes > replies.bytes;
        let old = around.now >= model.window_ns;
        ensure!(
            !quiet && (crowded || full || old),
            "no answer had to be dropped"
        );
        around.coverage.forgotten_for_room += u64::from(!crowded && !old);
        return Ok(());
    }
    count_repeat(command, around);
    let model = &mut *around.model;
    if code == ErrorCode::Ok {
        around.coverage.replies += 1;
        ensure!(!quiet, "a quiet command succeeded");
        let outdated = model.outdated.get(&command).into_iter().flatten();
        let same = |done: &Done| done.seq == it.seq && *done.reply == *it.payload;
        if outdated.into_iter().any(same) {
            return Ok(()); // it was on its way when the command was done again
        }
        let Some(done) = model.applied.get_mut(&command) else {
            return Err("the command was never applied".into());
        };
        done.told = true;
        let (topic, seq) = (done.topic, done.seq);
        ensure!(
            *it.payload == *done.reply,
            "its answer was {:?}",
            done.reply
        );
        model.topics[topic].see(seq);
        model.learn_id(topic, it.topic_id)?;
        ensure!(
            name.is_empty() || *name == *model.topics[topic].name,
            "it was applied to another topic"
        );
        ensure!(it.seq == seq, "its newest event is #{seq}");
        if let Some(record) = model.topics[topic].event(seq) {
            ensure!(
                record.command == command,
                "#{seq} is the event of another command"
            );
        }
        around.coverage.odd_events += u64::from(seq == 0);
        return Ok(());
    }
    around.coverage.refused_commands += 1;
    around.coverage.refused_quiet += u64::from(quiet);
    // Of one that was sent before, being refused for want of room says nothing.
    let before = overloaded && model.repeated.contains_key(&command);
    ensure!(
        before || !model.applied.contains_key(&command),
        "a refused command was applied"
    );
    if overloaded {
        let waits = around.plan.cores > 1 || around.model.journal;
        ensure!(waits, "a lone core waits for nobody");
        ensure!(it.retry_after_ms > 0, "it does not say when to try again");
        around.coverage.overloaded += 1;
        around.coverage.sessions_refused +=
            u64::from(it.payload.starts_with(b"reply_window_bytes"));
        return Ok(());
    }
    // Two short commands can be alike to the byte, so that another's refusal says nothing here.
    if let Some(done) = model.refused.get_mut(&command)
        && done.code == code
    {
        // One that was done again may be answered as it was before.
        done.told |= !model.outdated.contains_key(&command);
        return Ok(());
    }
    if topic_id == 0 {
        return name_refused(&name, code, around);
    }
    ensure!(code == ErrorCode::UnknownTopic, "no machine refused it");
    ensure!(!known_id, "that topic id was given out");
    Ok(())
}

/// Takes note of an answer to a command that was sent again.
fn count_repeat(command: u64, around: &mut Around<'_>) {
    let model = &*around.model;
    let Some(run) = model.repeated.get(&command) else {
        return;
    };
    if *run == model.run {
        around.coverage.repeats += 1;
        return;
    }
    around.coverage.repeats_after_restart += 1;
    let done = model.applied.get(&command).or(model.refused.get(&command));
    let before = done.is_some_and(|done| done.run < model.run);
    around.coverage.remembered_after_restart += u64::from(before);
}

/// The request id of a command to the same topic that is older and not answered yet.
fn first_of_topic(shadow: &Shadow, place: usize, model: &Model) -> Option<u64> {
    let key = |asked: &Asked| match asked {
        Asked::Command {
            topic_id: 0, name, ..
        } => Some(model.find(name).ok_or_else(|| name.clone())),
        Asked::Command { topic_id, .. } => {
            Some(model.by_id(*topic_id).ok_or_else(|| topic_id.to_string()))
        }
        _ => None,
    };
    let mine = key(&shadow.pending[place].what)?;
    shadow.pending[..place]
        .iter()
        .find(|p| {
            matches!(p.what, Asked::Command { quiet: false, .. })
                && key(&p.what).as_ref() == Some(&mine)
        })
        .map(|p| p.request_id)
}

/// A topic could not be opened by this name: the code must say why.
pub(super) fn name_refused(
    name: &str,
    code: ErrorCode,
    around: &mut Around<'_>,
) -> Result<(), String> {
    let expected = match TopicName::new(name) {
        Err(error) => error.code(),
        Ok(topic) if !is_kind(topic.kind()) => ErrorCode::UnknownKind,
        Ok(topic) if topic.kind() == CANDLE && candle_view(topic.name()).is_err() => {
            ErrorCode::BadName
        }
        Ok(topic) if is_durable(topic.kind()) && !around.model.journal => {
            around.coverage.no_journal += 1;
            ErrorCode::NoJournal
        }
        Ok(_) => {
            around.coverage.topic_limit += 1;
            ensure!(around.model.find(name).is_none(), "{name} exists");
            ensure!(
                around.model.live_topics() >= around.plan.limits.max_topics,
                "max_topics is not reached"
            );
            ErrorCode::TopicLimit
        }
    };
    ensure!(code == expected, "the reason for {name:?} is {expected}");
    Ok(())
}
