//! An app with the very race, that also sees who meets whom in it: it looks for a payment, takes its time, and books.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::office::{BRACKETS, Office, Visit, WELCOME};

/// The books of the app, open while it runs.
#[derive(Default)]
pub struct Shop(Mutex<Books>);

#[derive(Clone, Debug, Default)]
pub struct Books {
    /// How often each payment was booked.
    pub booked: HashMap<String, u32>,
    /// How many requests came about each payment.
    pub visits: HashMap<String, u32>,
    /// Who is in the app now: the payment, and whether it is the payer.
    inside: Vec<(String, bool)>,
    /// Two about one payment, or a webhook and a return that nobody could tell apart.
    pub met: Vec<String>,
    /// The most that were in the app at once.
    pub most: usize,
}

impl Shop {
    /// Opens; between the look and the booking `gap` goes by.
    pub fn open(mut office: Office, gap: Duration) -> Arc<Self> {
        let shop = Arc::new(Self::default());
        let open = Arc::clone(&shop);
        tokio::spawn(async move {
            loop {
                let visit = office.next().await;
                let shop = Arc::clone(&open);
                tokio::spawn(async move { shop.serve(visit, gap).await });
            }
        });
        shop
    }

    pub fn books(&self) -> Books {
        self.0.lock().unwrap().clone()
    }

    async fn serve(&self, visit: Visit, gap: Duration) {
        let payer = visit.line().starts_with("GET ");
        let from = if payer { visit.line() } else { &visit.body };
        let at = from.find("tr_").unwrap_or_else(|| panic!("no payment in {from}"));
        let reference: String = from[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let me = (reference.clone(), payer);
        let is_new = {
            let mut books = self.0.lock().unwrap();
            *books.visits.entry(reference.clone()).or_default() += 1;
            let meets = |(other, channel): &&(String, bool)| *other == reference || *channel != payer;
            let met: Vec<_> = books.inside.iter().filter(meets).map(|other| format!("{other:?} and {me:?}")).collect();
            books.met.extend(met);
            books.inside.push(me.clone());
            books.most = books.most.max(books.inside.len());
            !books.booked.contains_key(&reference)
        };
        tokio::time::sleep(gap).await;
        {
            let mut books = self.0.lock().unwrap();
            if is_new {
                *books.booked.entry(reference).or_default() += 1;
            }
            let at = books.inside.iter().position(|other| *other == me).unwrap();
            books.inside.swap_remove(at);
        }
        visit.answer(if payer { WELCOME } else { BRACKETS });
    }
}
