//! Time limits of a connection, on a clock that only moves when everybody waits.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

fn paced(room: usize) -> (Paced<DuplexStream>, Beat, DuplexStream) {
    let (ours, theirs) = duplex(room);
    let beat = Beat::new();
    (Paced::new(ours, beat.clone()), beat, theirs)
}

#[tokio::test(start_paused = true)]
async fn a_head_has_its_time_from_its_first_byte_and_waiting_for_it_has_none() {
    let (mut paced, beat, mut client) = paced(64);
    let start = Instant::now();
    let drip = async {
        // Nothing for a long time, then a byte each three seconds.
        tokio::time::sleep(Duration::from_mins(1)).await;
        for _ in 0..9 {
            client.write_all(b"G").await.unwrap();
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    };
    let read = async {
        let mut byte = [0];
        loop {
            if let Err(error) = paced.read(&mut byte).await {
                return (error.kind(), start.elapsed());
            }
        }
    };
    let ((), ended) = tokio::join!(drip, read);
    assert_eq!(ended, (io::ErrorKind::TimedOut, Duration::from_mins(1) + HEAD));

    // A request that is being answered has no such limit, and the next head has a new one.
    let (mut paced, beat2, mut client) = self::paced(64);
    drop(beat);
    client.write_all(b"GET").await.unwrap();
    paced.read_exact(&mut [0; 3]).await.unwrap();
    beat2.asked();
    tokio::time::timeout(HEAD * 3, paced.read(&mut [0]))
        .await
        .unwrap_err();
    beat2.answered();
    client.write_all(b"G").await.unwrap();
    paced.read_exact(&mut [0]).await.unwrap();
    let start = Instant::now();
    let error = paced.read(&mut [0]).await.unwrap_err();
    assert_eq!((error.kind(), start.elapsed()), (io::ErrorKind::TimedOut, HEAD));
}

#[tokio::test(start_paused = true)]
async fn what_is_written_must_be_taken_in_time_also_byte_by_byte() {
    let (mut paced, _beat, mut client) = paced(16);
    let start = Instant::now();
    let sip = async {
        let mut byte = [0];
        while client.read_exact(&mut byte).await.is_ok() && start.elapsed() < TAKE * 4 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let write = async {
        let ended = paced.write_all(&[0; 4096]).await.map_err(|error| error.kind());
        let took = start.elapsed();
        drop(paced);
        (ended, took)
    };
    let ((), (ended, took)) = tokio::join!(sip, write);
    assert_eq!(ended, Err(io::ErrorKind::TimedOut));
    assert!(took >= TAKE && took < TAKE + Duration::from_secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn answers_without_a_body_are_written_in_our_shape_whole_whatever_the_buffers_size() {
    for room in [7, 4096] {
        let (mut paced, _beat, mut client) = paced(room);
        let own = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let write = async {
            paced.write_all(own).await.unwrap();
            drop(paced);
        };
        let mut got = String::new();
        let ((), read) = tokio::join!(write, client.read_to_string(&mut got));
        read.unwrap();
        assert!(
            got.starts_with("HTTP/1.1 431 ") && got.ends_with("[head_too_large]\"}"),
            "{got}"
        );
    }
}
