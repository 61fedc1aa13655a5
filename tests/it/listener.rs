//! What a listener is told while it serves: more addresses, fewer, other bounds; and nobody who is connected loses
//! anything by it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;
use oncegate::ingress::{
    Body, Handler, Listener, Peer,
    listener::{Control, Drained, Options, bind},
};
use tokio::{
    net::TcpStream,
    sync::{Notify, oneshot},
    task::JoinHandle,
};

use crate::support::{
    standing::connect,
    wire::{Wire, soon},
};

const ASK: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Answers each request with its path, `/slow` only when it may.
#[derive(Default)]
struct Echo {
    asked: Notify,
    may: Notify,
}

impl Handler for Echo {
    async fn handle(self: Arc<Self>, request: Request<Incoming>, _peer: Peer) -> Response<Body> {
        if request.uri().path() == "/slow" {
            self.asked.notify_one();
            self.may.notified().await;
        }
        Response::new(Body::full(request.uri().path().to_owned()))
    }
}

struct House {
    echo: Arc<Echo>,
    address: SocketAddr,
    control: Control,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Drained>,
}

fn local() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn options(max_connections: usize) -> Options {
    Options { max_connections, ..Options::default() }
}

impl House {
    fn open(max_connections: usize) -> Self {
        let listener = Listener::bind(&[local()], options(max_connections)).unwrap();
        let (address, control, echo) = (listener.addresses()[0], listener.control(), Arc::new(Echo::default()));
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let served = tokio::spawn(listener.serve(Arc::clone(&echo), stopped, || Duration::from_secs(10)));
        Self { echo, address, control, stop, served }
    }

    async fn client(&self) -> Wire {
        connect(self.address).await
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        assert_eq!(soon(self.served).await.unwrap().unfinished, 0);
    }
}

async fn until_refused(address: SocketAddr) {
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(refused).await;
}

#[tokio::test]
async fn an_address_that_is_opened_is_served_and_one_that_is_closed_is_refused() {
    let house = House::open(10);
    let socket = bind(local(), 128).unwrap();
    let other = socket.local_addr().unwrap();
    house.control.open(socket);
    let mut wire = connect(other).await;
    wire.write(ASK).await;
    assert_eq!(wire.answer().await.1, "/");
    house.control.close(house.address);
    until_refused(house.address).await;
    wire.write(ASK).await;
    assert_eq!(wire.answer().await.1, "/", "the other address stays as it is");
    drop(wire);
    house.end().await;
}

#[tokio::test]
async fn whoever_is_connected_to_an_address_that_closes_gets_his_answers_and_then_the_end() {
    let house = House::open(10);
    let (mut slow, mut idle) = (house.client().await, house.client().await);
    idle.write(ASK).await;
    let (head, _) = idle.answer().await;
    assert!(head.all("connection").is_empty());
    slow.write("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    house.echo.asked.notified().await;
    house.control.close(house.address);
    until_refused(house.address).await;
    house.echo.may.notify_one();
    assert_eq!(slow.answer().await.1, "/slow");
    for wire in [&mut slow, &mut idle] {
        wire.write(ASK).await;
        let (head, body) = wire.answer().await;
        assert_eq!((head.one("connection"), &*body), ("close", "/"));
        assert_eq!(wire.rest().await, "");
    }
    house.end().await;
}

#[tokio::test]
async fn whoever_waits_in_the_queue_of_an_address_that_closes_is_taken_in() {
    let house = House::open(10);
    tokio::task::yield_now().await;
    // On this one thread nobody accepts before the next await: they wait in the kernel's queue.
    let waiting: Vec<_> = (0..5).map(|_| std::net::TcpStream::connect(house.address).unwrap()).collect();
    house.control.close(house.address);
    for stream in waiting {
        stream.set_nonblocking(true).unwrap();
        let mut wire = Wire::new(TcpStream::from_std(stream).unwrap());
        wire.write(ASK).await;
        assert_eq!(wire.answer().await.1, "/");
    }
    until_refused(house.address).await;
    house.end().await;
}

#[tokio::test]
async fn there_is_room_for_as_many_as_was_said_last() {
    let house = House::open(1);
    let mut first = house.client().await;
    first.write(ASK).await;
    first.answer().await;
    let mut second = house.client().await;
    second.write(ASK).await;
    assert_eq!(house.control.open_connections(), 1);
    house.control.change(options(2));
    second.answer().await;

    house.control.change(options(1));
    first.write(ASK).await;
    first.answer().await;
    drop(first);
    while house.control.open_connections() > 1 {
        tokio::task::yield_now().await;
    }
    let mut third = house.client().await;
    third.write(ASK).await;
    second.write(ASK).await;
    second.answer().await;
    assert_eq!(house.control.open_connections(), 1, "the third waits until the second is gone");
    drop(second);
    third.answer().await;
    drop(third);
    house.end().await;
}

#[tokio::test]
async fn who_has_just_come_when_the_gate_stops_is_heard_and_who_says_nothing_holds_it_up_for_a_moment_only() {
    let house = House::open(10);
    let mut late = house.client().await;
    let mut silent = house.client().await;
    while house.control.open_connections() < 2 {
        tokio::task::yield_now().await;
    }
    house.stop.send(()).unwrap();
    until_refused(house.address).await;
    late.write(ASK).await;
    let (head, body) = late.answer().await;
    assert_eq!((head.one("connection"), &*body), ("close", "/"));
    assert_eq!(silent.rest().await, "");
    assert_eq!(soon(house.served).await.unwrap().unfinished, 0);
}

#[tokio::test]
async fn what_is_just_arriving_on_a_kept_connection_when_the_gate_stops_is_answered() {
    let house = House::open(10);
    let (mut kept, mut idle) = (house.client().await, house.client().await);
    for wire in [&mut kept, &mut idle] {
        wire.write(ASK).await;
        assert!(wire.answer().await.0.all("connection").is_empty());
    }
    house.stop.send(()).unwrap();
    until_refused(house.address).await;
    kept.write(ASK).await;
    let (head, body) = kept.answer().await;
    assert_eq!((head.one("connection"), &*body), ("close", "/"));
    assert_eq!(idle.rest().await, "");
    assert_eq!(soon(house.served).await.unwrap().unfinished, 0);
}
