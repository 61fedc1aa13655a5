//! What may be asked of the app's own database: its address, and the queries.

use std::{cell::Cell, path::PathBuf, time::Duration};

use http::Uri;

use super::{
    provider::{World, is_written_in_clear, secret},
    report::Source,
    section::Section,
    setting::{Problem, Setting},
    tree::{Node, Value},
};
use crate::{
    lookup::{ApiOptions, Booking, NameKind, Naming, Options, Sort},
    provider::contract::{Secret, SecretKind},
    watch::Content,
};

/// How long an answer may take, where nothing is said: an indexed read takes a millisecond, and a webhook waits for it.
const TIMEOUT: Duration = Duration::from_millis(500);
/// The longest it may be told to take: the sender of a webhook waits.
const LONGEST: Duration = Duration::from_secs(5);
/// How many connections, where nothing is said.
const CONNECTIONS: usize = 4;

/// Reads `[lookup]`; `None` where nobody is named who could be asked.
pub fn read(section: &mut Section<'_>, world: &World<'_>) -> Option<Options> {
    let url = address(section, world);
    let api = api(section, world);
    let timeout = section.get_with("timeout", TIMEOUT, |node| match Duration::read(node)? {
        time if time.is_zero() || time > LONGEST => {
            Err(Problem::new(format!("{node} is not between 0 and 5s"), "callbacks wait for it: write \"500ms\""))
        }
        time => Ok(time),
    });
    let connections = super::options::bound(section, "connections", CONNECTIONS);
    let names = section.find_with("names", |node| each(node, FORM, |item| naming(item, world)));
    let booked = section.find_with("booked", |node| bookings(node, world));
    let ca: Option<PathBuf> = section.find("ca");
    let (names, booked) = (names.unwrap_or_default(), booked.unwrap_or_default());
    if url.is_none() {
        for key in ["names", "booked"].into_iter().filter(|key| *key == "names" || api.is_none()) {
            if is_the_users(section, key) {
                section.warn(key, "nothing is asked where no database is named", "write `url`, or leave it out");
            }
        }
    }
    if api.is_some() && booked.is_empty() {
        section.warn(
            "api",
            "nobody says about whose payments to ask",
            "write booked = [{ from = \"reference.mollie\" }]",
        );
    }
    if api.is_none() {
        for (i, _) in booked.iter().enumerate().filter(|(_, booking)| booking.sql.is_none()) {
            section.fault("booked", format!("[{i}]: `sql` is missing, and there is no `api` to ask"), BOOKED);
        }
    }
    let ca_content = ca.as_deref().and_then(|path| match (world.file)(path) {
        Ok(bytes) => Some(Content::of(&bytes)),
        Err(error) => {
            section.fault("ca", format!("the file cannot be read: {error}"), "let the gate's user read it");
            None
        }
    });
    let (names, database) = match url {
        Some(url) => {
            let sort = sort(section, &url, &names, &booked)?;
            (names.into(), Some(crate::lookup::Source { url, sort }))
        }
        None if api.is_none() => return None,
        None => ([].into(), None),
    };
    Some(Options { database, api, ca, ca_content, timeout, connections, names, booked: booked.into() })
}

/// What kind of database it is, if address and queries are in order.
fn sort(section: &mut Section<'_>, url: &Secret, names: &[Naming], booked: &[Booking]) -> Option<Sort> {
    let text = std::str::from_utf8(url.expose()).unwrap_or_default();
    let sort = match Options::sort_of(text) {
        Ok((sort, overheard)) => {
            if overheard {
                let message = "the password and the names of payments travel to another machine unencrypted";
                let remedy = match sort {
                    Sort::MySql => "add ?require_ssl=true to the address, and `ca` if your authority is your own",
                    Sort::Postgres => "add ?sslmode=require to the address, and `ca` if your authority is your own",
                };
                section.warn("url", message, remedy);
            }
            Some(sort)
        }
        Err(why) => {
            let remedy = "write \"mysql://user:password@host/database\" or \"postgresql://user:password@host/database\"; \
                          in a password, percent-encode what is neither letter nor digit";
            section.fault("url", format!("this is no address of a database: {why}"), remedy);
            None
        }
    };
    if names.is_empty() && booked.is_empty() {
        section.warn("url", "there is nothing to ask of it", "write `names` or `booked`, or take a preset that does");
    }
    let sort = sort?;
    let (asks, place) = match sort {
        Sort::MySql => ("?", "MySQL and MariaDB"),
        Sort::Postgres => ("$1", "PostgreSQL"),
    };
    let without = |sql: &str| !sql.contains(asks);
    for (i, naming) in names.iter().enumerate().filter(|(_, naming)| without(&naming.sql)) {
        let message = format!("[{i}].sql: nothing in it stands for the {} that is asked with", naming.from);
        section.fault("names", message, format!("write {asks} where it belongs: {place} take it there"));
    }
    for (i, booking) in booked.iter().enumerate().filter(|(_, booking)| booking.sql.as_deref().is_some_and(without)) {
        let message = format!("[{i}].sql: nothing in it stands for the reference of {}", booking.provider);
        section.fault("booked", message, format!("write {asks} where it belongs: {place} take it there"));
    }
    Some(sort)
}

/// Invoice Ninja's API, if it may be asked.
fn api(section: &mut Section<'_>, world: &World<'_>) -> Option<ApiOptions> {
    let url: Option<Uri> = section.find_with("api", super::provider::api_url).and_then(|url| url.parse().ok());
    let in_clear = Cell::new(false);
    let token = section.find_with("api_token", |node| {
        in_clear.set(is_written_in_clear(node));
        secret(node, &|_| SecretKind::Token, world)
    });
    if in_clear.get() {
        let message = "a token stands in the file itself, for every reader and every backup of it";
        section.warn("api_token", message, "write { env = \"NAME\" } or { file = \"/path\" }");
    }
    let here = |url: &Uri| matches!(url.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
    if url.as_ref().is_some_and(|url| url.scheme_str() == Some("http") && !here(url)) {
        section.warn("api", "the token and the names of payments travel unencrypted", "write https://");
    }
    match (url, token) {
        (Some(url), Some(token)) => Some(ApiOptions { url, token }),
        (Some(_), None) => {
            if !section.has("api_token") {
                section.fault("api", "without a token it lets nobody in", "write api_token = { env = \"NAME\" }");
            }
            None
        }
        (None, Some(_)) => {
            section.warn("api_token", "nobody is asked with it", "write api = \"https://…\", or leave it out");
            None
        }
        (None, None) => None,
    }
}

/// The address, with its password.
fn address(section: &mut Section<'_>, world: &World<'_>) -> Option<Secret> {
    let in_clear = Cell::new(false);
    let url = section.find_with("url", |node| {
        in_clear.set(is_written_in_clear(node));
        let url = secret(node, &|_| SecretKind::Token, world)?;
        if std::str::from_utf8(url.expose()).is_ok() { Ok(url) } else { Err(no_text()) }
    });
    if in_clear.get() {
        let message = "a password stands in the file itself, for every reader and every backup of it";
        section.warn("url", message, "write { env = \"NAME\" } or { file = \"/path\" }");
    }
    url
}

fn no_text() -> Problem {
    Problem::new("the address is no UTF-8 text", "write it as text")
}

fn is_the_users(section: &Section<'_>, key: &str) -> bool {
    let origin = section.origin(key);
    section.has(key) && matches!(origin.source, Source::File(_))
}

/// The form of a query for names.
const FORM: &str = "write { from = \"reference.mollie\", to = \"payment_hash\", sql = \"SELECT …\" }";

/// The form of a query for what was booked.
const BOOKED: &str = "write { from = \"reference.mollie\", sql = \"SELECT reference FROM …\" }";

/// A list of queries, each read in the same way.
fn each<T>(node: &Node, form: &str, read: impl Fn(&Node) -> Result<T, Problem>) -> Result<Vec<T>, Problem> {
    let Value::List(items) = &node.value else {
        return Err(Problem::new(format!("{} stands here", node.kind()), format!("{form}, in a list")));
    };
    let placed = |(i, item): (usize, &Node)| {
        read(item).map_err(|problem| Problem::new(format!("[{i}]: {}", problem.message), problem.remedy))
    };
    items.iter().enumerate().map(placed).collect()
}

/// What stands at these keys of a query, and at no other.
fn parts<'n, const N: usize>(node: &'n Node, keys: [&str; N], form: &str) -> Result<[&'n Node; N], Problem> {
    let table = node.as_table().ok_or_else(|| Problem::new(format!("{} is no query", node.kind()), form))?;
    if let Some(key) = table.keys().find(|key| !keys.contains(&key.as_str())) {
        return Err(Problem::new(format!("a query has no `{key}` here"), form));
    }
    let mut found = [node; N];
    for (part, key) in found.iter_mut().zip(keys) {
        *part = table.get(key).ok_or_else(|| Problem::new(format!("`{key}` is missing"), form))?;
    }
    Ok(found)
}

fn naming(node: &Node, world: &World<'_>) -> Result<Naming, Problem> {
    let [from, to, sql] = parts(node, ["from", "to", "sql"], FORM)?;
    let (from, to) = (kind(from, world)?, kind(to, world)?);
    if from == to {
        return Err(Problem::new(format!("it leads from {from} to {to}"), "a query leads to names of another kind"));
    }
    Ok(Naming { from, to, sql: query(sql)?.into() })
}

fn bookings(node: &Node, world: &World<'_>) -> Result<Vec<Booking>, Problem> {
    let bookings = each(node, BOOKED, |item| booking(item, world))?;
    let first = |booking: &Booking| bookings.iter().position(|other| other.provider == booking.provider);
    match bookings.iter().enumerate().find(|(i, booking)| first(booking) != Some(*i)) {
        Some((i, Booking { provider, .. })) => {
            let message = format!("[{i}]: another query tells of the payments of {provider} already");
            Err(Problem::new(message, "write one for each provider"))
        }
        None => Ok(bookings),
    }
}

fn booking(node: &Node, world: &World<'_>) -> Result<Booking, Problem> {
    let table = node.as_table().filter(|table| !table.contains_key("sql"));
    let (from, sql) = match table {
        Some(_) => (parts(node, ["from"], BOOKED)?[0], None),
        None => {
            let [from, sql] = parts(node, ["from", "sql"], BOOKED)?;
            (from, Some(query(sql)?.into()))
        }
    };
    match kind(from, world)? {
        NameKind::Reference(provider) => Ok(Booking { provider, sql }),
        NameKind::Alias(kind) => {
            Err(Problem::new(format!("what is booked is told by a reference, and {kind} is none"), BOOKED))
        }
    }
}

fn kind(node: &Node, world: &World<'_>) -> Result<NameKind, Problem> {
    let text = String::read(node)?;
    match text.split_once('.') {
        Some(("reference", provider)) => Ok(NameKind::Reference(world.provider(provider)?.name)),
        None if text == "reference" => {
            let remedy = "write \"reference.mollie\", or \"reference.generic\" for those that the gate does not know";
            Err(Problem::new("two providers may use one reference for two payments", remedy))
        }
        None if !text.is_empty() => Ok(NameKind::Alias(text.into())),
        _ => Err(Problem::new(format!("{node} is no kind of name"), "write \"payment_hash\" or \"reference.mollie\"")),
    }
}

fn query(node: &Node) -> Result<String, Problem> {
    let text = String::read(node)?;
    let begins = text.trim_start().get(..6).is_some_and(|word| {
        word.eq_ignore_ascii_case("select") || word.get(..5).is_some_and(|word| word.eq_ignore_ascii_case("with "))
    });
    let no = |why: &str| Err(Problem::new(format!("{node} is no query: {why}"), "write one \"SELECT … WHERE …\""));
    match () {
        () if !begins => no("it begins neither with SELECT nor with WITH"),
        () if text.contains(';') => no("it is one statement, and no `;` is needed"),
        () => Ok(text),
    }
}
