//! Tries every query, and says what the user may do beyond what they need; for a person who asks.

use super::{Database, Lookup, Trouble, api};

/// Something that a person should know about the database as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The key that it is about.
    pub key: String,
    /// What there is to be said.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// Whether nothing will be found because of it.
    pub is_fault: bool,
}

/// What no payment is called by.
const NOBODY: &str = "oncegate-check";

impl Lookup {
    /// Asks the database and the API themselves; nothing is changed there.
    pub async fn examine(&self) -> Vec<Remark> {
        let mut remarks = self.examine_database().await;
        if let Some(api) = &self.api
            && let Err(trouble) = api.is_booked(NOBODY).await
        {
            let (key, message) = ("lookup.api".to_owned(), api::in_words(&trouble));
            let remedy = match trouble {
                Trouble::Refused(_) => "give it a token that may view payments (lookup.api_token)",
                Trouble::Query(_) => "write the address of the app, of version 5",
                _ => "correct the address, or start the app",
            };
            remarks.push(Remark { key, message, remedy: remedy.to_owned(), is_fault: true });
        }
        remarks
    }

    async fn examine_database(&self) -> Vec<Remark> {
        let mut remarks = Vec::new();
        let Some(database) = &self.database else { return remarks };
        for place in self.options.places().filter(|place| self.options.query(*place).is_some()) {
            let Err(trouble) = self.put(place, NOBODY).await else { continue };
            let (key, remedy) = match &trouble {
                Trouble::Query(_) => {
                    (self.key_of(place), "correct it, and let the user read the columns that it names (README.md)")
                }
                Trouble::TooSlow => (self.key_of(place), "give it an index to go by, or more time (lookup.timeout)"),
                Trouble::Refused(_) => {
                    ("lookup.url".to_owned(), "correct the user, the password or the database's name")
                }
                Trouble::Away(_) | Trouble::Resting | Trouble::Crowded | Trouble::Limited(_) => {
                    ("lookup.url".to_owned(), "correct the address, or start the database")
                }
            };
            let gone = trouble.is_of_the_database() && trouble != Trouble::TooSlow;
            remarks.push(Remark { key, message: trouble.to_string(), remedy: remedy.to_owned(), is_fault: true });
            if gone {
                return remarks;
            }
        }
        let excess = match database {
            Database::MySql(pool) => {
                pool.engine().grants().await.map(|grants| grants.iter().flat_map(|grant| excess_of(grant)).collect())
            }
            Database::Postgres(pool) => pool.engine().excess().await,
        };
        let told = excess.unwrap_or_else(|why| vec![format!("what it may do can't be told: {why}")]);
        let remedy = "give the gate a user of its own, with nothing but SELECT on what its queries read (README.md)";
        remarks.extend(told.into_iter().map(|what| Remark {
            key: "lookup.url".to_owned(),
            message: format!("the user may do more than is needed: {what}"),
            remedy: remedy.to_owned(),
            is_fault: false,
        }));
        remarks
    }
}

/// What one line of `SHOW GRANTS` gives beyond reading some tables. The line itself may hold a password, and is never shown.
fn excess_of(grant: &str) -> Vec<String> {
    let Some(rest) = grant.strip_prefix("GRANT ") else { return Vec::new() };
    let Some((privileges, rest)) = rest.split_once(" ON ") else {
        let role = rest.split(" TO ").next().unwrap_or_default();
        return vec![format!("it has the role {role}, with all that this brings")];
    };
    let object = rest.split(" TO ").next().unwrap_or_default();
    let mut excess: Vec<_> = outside_of_parentheses(privileges)
        .into_iter()
        .filter_map(|privilege| match &*privilege {
            "USAGE" => None,
            "SELECT" if object.ends_with(".*") => Some(format!("it may read all of {object}")),
            "SELECT" => None,
            other => Some(format!("it may {other} on {object}")),
        })
        .collect();
    if grant.contains(" WITH GRANT OPTION") {
        excess.push(format!("it may pass on what it may do on {object}"));
    }
    excess
}

/// The privileges of a list, without the columns that stand behind some.
fn outside_of_parentheses(list: &str) -> Vec<String> {
    let mut depth = 0_usize;
    let outside: String = list
        .chars()
        .filter(|c| {
            depth += usize::from(*c == '(');
            let outside = depth == 0;
            depth = depth.saturating_sub(usize::from(*c == ')'));
            outside
        })
        .collect();
    outside.split(',').map(|privilege| privilege.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_some_tables_is_no_excess_and_everything_else_is() {
        for fine in [
            "GRANT USAGE ON *.* TO `o`@`%` IDENTIFIED BY PASSWORD '*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19'",
            "GRANT SELECT (`hash`, `data`), SELECT (`id`) ON `ninja`.`payment_hashes` TO `o`@`%`",
            "GRANT SELECT ON `ninja`.`payments` TO `o`@`%`",
        ] {
            assert!(excess_of(fine).is_empty(), "{fine}");
        }
        for (grant, told) in [
            ("GRANT SELECT ON *.* TO `o`@`%` IDENTIFIED BY PASSWORD '*24'", &["it may read all of *.*"][..]),
            (
                "GRANT SELECT, INSERT ON `ninja`.* TO `o`@`%`",
                &["it may read all of `ninja`.*", "it may INSERT on `ninja`.*"],
            ),
            ("GRANT UPDATE (`a`, `b`) ON `n`.`p` TO `o`@`%`", &["it may UPDATE on `n`.`p`"]),
            ("GRANT `staff` TO `o`@`%`", &["it has the role `staff`, with all that this brings"]),
            (
                "GRANT ALL PRIVILEGES ON *.* TO `o`@`%` IDENTIFIED BY PASSWORD '*24' WITH GRANT OPTION",
                &["it may ALL PRIVILEGES on *.*", "it may pass on what it may do on *.*"],
            ),
        ] {
            assert_eq!(excess_of(grant), told);
        }
    }
}
