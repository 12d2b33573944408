-- What a shared catalog does not have yet: each write of a row gives it a
-- revision that no row had before. Rows from before have one of their own in
-- their table; the blind windows are few and share one.

-- +goose Up
ALTER TABLE attachments ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE calls       ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE legs        ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE segments    ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE blind       ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
UPDATE attachments SET revision = num;
UPDATE calls       SET revision = rowid;
UPDATE legs        SET revision = rowid;
UPDATE segments    SET revision = rowid;
UPDATE blind       SET revision = 1;
CREATE INDEX attachments_revision ON attachments (revision);
CREATE INDEX calls_revision       ON calls (revision);
CREATE INDEX legs_revision        ON legs (revision);
CREATE INDEX segments_revision    ON segments (revision);
CREATE INDEX blind_revision       ON blind (revision);

CREATE TABLE shipping (
  one     INTEGER PRIMARY KEY CHECK (one = 1),
  id      TEXT    NOT NULL, -- of this catalog, and of no other
  shipped INTEGER NOT NULL  -- the shared catalog has every row up to this revision
);
INSERT INTO shipping VALUES (1, lower(hex(randomblob(16))), 0);

-- +goose Down
DROP TABLE shipping;
DROP INDEX blind_revision;
DROP INDEX segments_revision;
DROP INDEX legs_revision;
DROP INDEX calls_revision;
DROP INDEX attachments_revision;
ALTER TABLE blind       DROP COLUMN revision;
ALTER TABLE segments    DROP COLUMN revision;
ALTER TABLE legs        DROP COLUMN revision;
ALTER TABLE calls       DROP COLUMN revision;
ALTER TABLE attachments DROP COLUMN revision;
