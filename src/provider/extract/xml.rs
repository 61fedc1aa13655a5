//! The texts of a plain XML document, by the way to them: enough for callbacks, and nothing that readers differ on.

use super::{Found, Unrecognised, judge};

/// Deeper documents are refused.
const MAX_DEPTH: usize = 32;

const NO_XML: &str = "it is no XML that we read";

/// The elements that contain no others, each with its way and its text.
#[derive(Debug)]
pub struct Elements(Vec<(String, String)>);

impl Elements {
    /// Parses a document. There may be a declaration, attributes (which are not read), the five entities, characters by
    /// number and CDATA; there is no document type, no comment and no instruction.
    ///
    /// # Errors
    ///
    /// If it is no such document.
    pub fn parse(text: &str) -> Result<Self, Unrecognised> {
        read(text).map(Self).ok_or_else(|| Unrecognised(NO_XML.to_owned()))
    }

    /// The text of the element at the end of this way; none where it is empty.
    ///
    /// # Errors
    ///
    /// If there are two, or the text is not read alike by all.
    pub fn text(&self, way: &str) -> Result<Option<&str>, Unrecognised> {
        let Some(text) = self.long(way)? else { return Ok(None) };
        match judge(&way, text.into()) {
            Found::Ambiguous(why) => Err(Unrecognised(why)),
            Found::Empty | Found::Absent => Ok(None),
            Found::One(_) => Ok(Some(text)),
        }
    }

    /// As [`text`](Self::text), for a text that names nothing and may be long.
    ///
    /// # Errors
    ///
    /// If there are two.
    pub fn long(&self, way: &str) -> Result<Option<&str>, Unrecognised> {
        let mut found = self.0.iter().filter(|(known, _)| known == way).map(|(_, text)| text.as_str());
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(Unrecognised(format!("{way}: it stands there more than once"))),
            (text, None) => Ok(text.filter(|text| !text.is_empty())),
        }
    }

    /// The names of what stands right under the root, with their texts.
    pub fn flat(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(way, text)| {
            let (_, name) = way.split_once('/')?;
            (!name.contains('/')).then_some((name, text.as_str()))
        })
    }
}

/// An element that is open: how long the way to it is, its text so far, and whether it contains others.
struct Open {
    way: usize,
    text: String,
    parent: bool,
}

fn read(text: &str) -> Option<Vec<(String, String)>> {
    let mut rest = text.trim_start();
    if let Some(declared) = rest.strip_prefix("<?xml") {
        rest = declared.split_once("?>")?.1;
    }
    let (mut elements, mut way, mut open) = (Vec::new(), String::new(), Vec::<Open>::new());
    let mut ended = false;
    loop {
        let (before, at) = match rest.find('<') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        match open.last_mut() {
            Some(element) => element.text.push_str(&unescaped(before)?),
            None if !before.trim().is_empty() => return None,
            None => {}
        }
        if at.is_empty() {
            return (ended && open.is_empty()).then_some(elements);
        }
        if let Some(data) = at.strip_prefix("<![CDATA[") {
            let (data, after) = data.split_once("]]>")?;
            open.last_mut()?.text.push_str(data);
            rest = after;
        } else if let Some(end) = at.strip_prefix("</") {
            let (name, after) = end.split_once('>')?;
            let element = open.pop()?;
            if way[element.way..].trim_start_matches('/') != name.trim_end() {
                return None;
            }
            if !element.parent {
                elements.push((way.clone(), element.text));
            }
            way.truncate(element.way);
            (rest, ended) = (after, open.is_empty());
        } else {
            if ended || open.len() == MAX_DEPTH {
                return None;
            }
            let (name, empty, after) = start(&at[1..])?;
            if let Some(parent) = open.last_mut() {
                parent.parent = true;
            }
            let before = way.len();
            if before > 0 {
                way.push('/');
            }
            way.push_str(name);
            if empty {
                elements.push((way.clone(), String::new()));
                way.truncate(before);
                ended = open.is_empty();
            } else {
                open.push(Open { way: before, text: String::new(), parent: false });
            }
            rest = after;
        }
    }
}

/// The name of an element that begins, whether it ends as well, and what follows.
fn start(text: &str) -> Option<(&str, bool, &str)> {
    let name_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name_end = text.find(|c: char| !name_char(c))?;
    let (name, mut rest) = text.split_at(name_end);
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix("/>") {
            return Some((name, true, after));
        }
        if let Some(after) = rest.strip_prefix('>') {
            return Some((name, false, after));
        }
        let (attribute, value) = rest.split_once('=')?;
        if attribute.contains(['<', '>', '"', '\'']) {
            return None;
        }
        let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        rest = value[1..].split_once(quote)?.1;
    }
}

fn unescaped(text: &str) -> Option<String> {
    let mut pieces = text.split('&');
    let mut plain = pieces.next()?.to_owned();
    for piece in pieces {
        let (name, after) = piece.split_once(';')?;
        plain.push(match name {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = name.strip_prefix('#')?;
                let code = match number.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16),
                    None => number.parse(),
                };
                char::from_u32(code.ok()?)?
            }
        });
        plain.push_str(after);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, way: &str) -> Option<String> {
        Elements::parse(text).ok()?.text(way).ok()?.map(str::to_owned)
    }

    #[test]
    fn texts_are_found_by_the_way_to_them() {
        let text =
            "<?xml version=\"1.0\"?>\n<n a='1'><kind>x &amp; y</kind><s><t type=\"b\"><id>1</id><e/></t></s></n>\n";
        assert_eq!(told(text, "n/kind").as_deref(), Some("x & y"));
        assert_eq!(told(text, "n/s/t/id").as_deref(), Some("1"));
        assert_eq!([told(text, "n/s/t/e"), told(text, "n/s/t"), told(text, "n/id")], [None, None, None]);
        assert_eq!(told("<x><a><![CDATA[<&]]></a></x>", "x/a").as_deref(), Some("<&"));
        assert_eq!(told("<x><a>&#65;&#x42;</a></x>", "x/a").as_deref(), Some("AB"));
        let elements = Elements::parse("<x><a>1</a><b><c>2</c></b></x>").unwrap();
        assert_eq!(elements.flat().collect::<Vec<_>>(), [("a", "1")]);
    }

    #[test]
    fn what_readers_differ_on_is_refused() {
        for odd in [
            "",
            "x",
            "<a>",
            "</a>",
            "<a></b>",
            "<a/><b/>",
            "<a>&x;</a>",
            "<a>&lt</a>",
            "<!DOCTYPE a><a/>",
            "<a><!-- --></a>",
            "<a><?php?></a>",
            "<a b>1</a>",
            "<a b=c>1</a>",
            "<1/>",
            "<a/>x",
            "<a><![CDATA[</a>",
            "<é/>",
        ] {
            assert!(Elements::parse(odd).is_err(), "{odd}");
        }
        assert!(Elements::parse("<a><b>1</b><b>2</b></a>").unwrap().text("a/b").is_err());
        let deep = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert!(Elements::parse(&deep(32)).is_ok() && Elements::parse(&deep(33)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[<>/a!?\\[\\]&;#x='\" é-]{0,60}") {
            let _ = Elements::parse(&text);
        }
    }
}
