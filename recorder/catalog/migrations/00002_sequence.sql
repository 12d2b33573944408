-- Which RTP packets a segment holds: two recorders that both heard the same
-- second are known by them.

-- +goose Up
ALTER TABLE segments ADD COLUMN first_seq INTEGER NOT NULL DEFAULT 0; -- extended RTP sequence number of the first packet
ALTER TABLE segments ADD COLUMN last_seq  INTEGER NOT NULL DEFAULT 0; -- and of the last

-- +goose Down
ALTER TABLE segments DROP COLUMN last_seq;
ALTER TABLE segments DROP COLUMN first_seq;
