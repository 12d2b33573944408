-- Times are microseconds since 1970 UTC, in columns ending in _us.

-- +goose Up
CREATE TABLE attachments (
  num          INTEGER PRIMARY KEY, -- never reused: journals and segments refer to it
  channel      TEXT    NOT NULL,
  session      TEXT    NOT NULL,
  user         TEXT    NOT NULL,
  user_name    TEXT    NOT NULL,
  device       TEXT    NOT NULL,
  profile      TEXT    NOT NULL,
  mix          TEXT    NOT NULL,
  copy         TEXT    NOT NULL,
  sources      TEXT    NOT NULL, -- JSON list
  host         TEXT    NOT NULL,
  port         INTEGER NOT NULL,
  codec        TEXT    NOT NULL,
  payload_type INTEGER NOT NULL,
  rtcp_mux     INTEGER NOT NULL,
  remote       TEXT    NOT NULL, -- address:port the switch says it sends from
  dialog       BLOB,
  reason       TEXT    NOT NULL,
  opened_us    INTEGER NOT NULL,
  closed_us    INTEGER,
  cause        TEXT    NOT NULL
);
CREATE UNIQUE INDEX attachments_open ON attachments (channel) WHERE closed_us IS NULL;

CREATE TABLE calls (
  id         TEXT PRIMARY KEY,
  line       TEXT    NOT NULL,
  direction  TEXT    NOT NULL,
  kind       TEXT    NOT NULL,
  party      TEXT    NOT NULL,
  party_name TEXT    NOT NULL,
  state      TEXT    NOT NULL,
  start_us   INTEGER NOT NULL,
  end_us     INTEGER,
  end_cause  TEXT    NOT NULL
);

CREATE TABLE legs (
  id             TEXT PRIMARY KEY,
  call           TEXT    NOT NULL,
  session        TEXT    NOT NULL,
  user           TEXT    NOT NULL,
  user_name      TEXT    NOT NULL,
  device         TEXT    NOT NULL,
  source         TEXT    NOT NULL,
  start_us       INTEGER NOT NULL,
  end_us         INTEGER,
  end_cause      TEXT    NOT NULL,
  accuracy       TEXT    NOT NULL,
  grp            TEXT    NOT NULL,
  secondary      INTEGER NOT NULL,
  interrupted_us INTEGER            -- the recorder stopped while this leg was open and nobody has spoken of it since
);
CREATE INDEX legs_call  ON legs (call);
CREATE INDEX legs_start ON legs (start_us);
CREATE INDEX legs_open  ON legs (start_us) WHERE end_us IS NULL;

CREATE TABLE leg_channels (
  leg     TEXT NOT NULL,
  channel TEXT NOT NULL,
  PRIMARY KEY (leg, channel)
) WITHOUT ROWID;
CREATE INDEX leg_channels_channel ON leg_channels (channel);

-- When call events could not be heard: by the director, or because no director
-- watched this recorder.
CREATE TABLE blind (
  from_us   INTEGER NOT NULL,
  unwatched INTEGER NOT NULL,
  to_us     INTEGER,
  PRIMARY KEY (from_us, unwatched)
) WITHOUT ROWID;

CREATE TABLE segments (
  id            TEXT PRIMARY KEY,
  num           INTEGER NOT NULL,
  channel       TEXT    NOT NULL,
  copy          TEXT    NOT NULL,
  start_us      INTEGER NOT NULL,
  end_us        INTEGER NOT NULL,
  codec         TEXT    NOT NULL,
  ssrc          INTEGER NOT NULL,
  first_ts      INTEGER NOT NULL, -- extended RTP timestamp of the first sample
  samples       INTEGER NOT NULL,
  file          TEXT    NOT NULL, -- under the media directory
  size          INTEGER NOT NULL,
  sha256        TEXT    NOT NULL,
  packets       INTEGER NOT NULL,
  lost          INTEGER NOT NULL,
  reordered     INTEGER NOT NULL,
  duplicates    INTEGER NOT NULL,
  max_jitter_us INTEGER NOT NULL,
  sealed        INTEGER NOT NULL,
  state         BLOB               -- what the compactor needs to go on with an open segment
);
CREATE INDEX segments_channel ON segments (channel, start_us);
CREATE INDEX segments_start   ON segments (start_us);
CREATE INDEX segments_open    ON segments (num) WHERE sealed = 0;

CREATE TABLE gaps (
  segment TEXT    NOT NULL,
  channel TEXT    NOT NULL,
  from_us INTEGER NOT NULL,
  to_us   INTEGER NOT NULL,
  cause   TEXT    NOT NULL,
  PRIMARY KEY (segment, from_us)
) WITHOUT ROWID;
CREATE INDEX gaps_channel ON gaps (channel, from_us);

-- The compactor's place: every journal file up to this number is in segments.
CREATE TABLE compacted (
  one    INTEGER PRIMARY KEY CHECK (one = 1),
  number INTEGER NOT NULL,
  state  BLOB
);
INSERT INTO compacted (one, number) VALUES (1, 0);

-- +goose Down
DROP TABLE compacted;
DROP TABLE gaps;
DROP TABLE segments;
DROP TABLE blind;
DROP TABLE leg_channels;
DROP TABLE legs;
DROP TABLE calls;
DROP TABLE attachments;
