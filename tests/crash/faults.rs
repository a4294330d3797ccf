//! The checks can fail: each is given the mistake that it is for, and has to find it.

use super::check::{self, Journal};
use super::database::Database;
use super::publish::Publisher;
use super::subscribe::Subscriber;
use super::tables::{self, Table};

/// Journals that are wrong in one event. Gives how many mistakes were found.
pub(crate) fn in_the_journal(
    journal: &mut Journal,
    publishers: &[Publisher],
    subscribers: &[Subscriber],
) -> usize {
    let mut found = 0;
    for topic in ["log/a", "market/T0"] {
        let good = journal.topics[topic].clone();
        let (middle, last) = (good.len() / 2, good.len() - 1);
        let durable = topic.starts_with("log/");
        let mut wrong = |what: &str, change: &dyn Fn(&mut Vec<check::Event>), all: bool| {
            journal.topics.insert(topic.to_owned(), good.clone());
            change(journal.topics.get_mut(topic).expect("it was put there"));
            let commands = check::commands(journal, publishers).map(drop);
            let seen = check::seen(journal, subscribers).map(drop);
            let results = [check::seqs(journal), commands, seen];
            let missed = results.iter().filter(|result| result.is_ok()).count();
            assert!(
                missed == 0 || (!all && missed < 3),
                "{topic}, {what}: {results:?}"
            );
            found += results.len() - missed;
        };
        wrong(
            "an event is missing",
            &|events| drop(events.remove(middle)),
            durable,
        );
        // What was answered last was answered in the life that ended in order.
        wrong(
            "the last event is missing",
            &|events| drop(events.pop()),
            false,
        );
        let twice = |events: &mut Vec<check::Event>| {
            let mut again = events[last].clone();
            again.seq += 1;
            events.push(again);
        };
        wrong("a command was carried out twice", &twice, false);
        wrong(
            "a seq is used twice",
            &|events| events[middle].seq -= 1,
            durable,
        );
        wrong("another body", &|events| events[middle].body[0] ^= 1, false);
        journal.topics.insert(topic.to_owned(), good);
    }
    found
}

/// Tables that are wrong in one row: one column after the other, or the row is missing. Gives how
/// many mistakes were found.
pub(crate) fn in_the_database(database: &Database, journal: &Journal, tables: &[Table]) -> usize {
    let mut found = 0;
    let mut wrong = |statement: &str, is_found: &dyn Fn() -> bool| {
        database.execute("BEGIN");
        assert_eq!(database.execute(statement), 1, "{statement}");
        assert!(is_found(), "nobody noticed: {statement}");
        database.execute("ROLLBACK");
        found += 1;
    };
    for table in tables {
        let (row, is_found) = (table.first_row(database), || {
            table.compare(database).is_err()
        });
        for column in table.columns().1 {
            // Whatever it is, then it is another.
            let other = match column {
                "name" => "'x'".to_owned(),
                "body" => "x'00'".to_owned(),
                number => format!("COALESCE({number}+1,0)"),
            };
            let sql = format!("UPDATE {} SET {column}={other} WHERE {row}", table.name);
            wrong(&sql, &is_found);
        }
        let sql = format!("DELETE FROM {} WHERE {row}", table.name);
        wrong(&sql, &is_found);
    }
    let checkpoints = || tables::checkpoints(database, journal).is_err();
    for statement in [
        "UPDATE checkpoints SET position = position + 1000000 WHERE lane = 0",
        "UPDATE checkpoints SET position = 0 WHERE lane = 0",
        "UPDATE checkpoints SET journal = journal + 1 WHERE lane = 1",
        "DELETE FROM checkpoints WHERE lane = 1",
    ] {
        wrong(statement, &checkpoints);
    }
    found
}
