-- Every storage class, odd name and kind of object that SQLite has.
PRAGMA auto_vacuum = 2;
PRAGMA page_size = 8192;
PRAGMA journal_mode = WAL;
CREATE TABLE "values"(a, b TEXT, c INTEGER, d REAL, e BLOB, f NUMERIC);
INSERT INTO "values" VALUES
  (NULL, '', 0, 0.0, x'', 0),
  ('', NULL, -1, -0.0, zeroblob(3), 1.5),
  (x'616263', 'abc', 9223372036854775807, 9e999, x'000a0d27ff', '12 apples'),
  ('abc', x'616263', -9223372036854775808, -9e999, 'text in a blob column', 9007199254740993),
  ('emoji 🎁🧿 and ü', 'line
break', 4611686018427387904, 1e308, x'00', 1e100),
  (CAST(x'410042' AS TEXT), CAST(x'0a00' AS TEXT), 'not a number', 5e-324, NULL, '0x10'),
  (CAST(x'c328ff' AS TEXT), 'tab	quote '' double " back\slash', 1.5, 0.1, x'c328', '1e5'),
  ('carriage' || char(13) || 'return', '--comment', 3, 2.2250738585072014e-308, x'2d2d', ';'),
  (1e15, 1e16, 1e17, 123456789012345678, 1.7976931348623157e308, 3.0),
  (printf('%.*c', 5000, 'x'), printf('%.*c', 70000, char(10)), 1, 1, randomblob(0), 1);
CREATE TABLE gaps(x);
INSERT INTO gaps(rowid, x) VALUES (-5, 'negative'), (1, 'one'), (1000, 'thousand'), (9223372036854775807, 'last');
DELETE FROM gaps WHERE rowid = 1;
CREATE TABLE shadowed(rowid TEXT, _rowid_ TEXT, x);
INSERT INTO shadowed(oid, rowid, _rowid_, x) VALUES (77, 'a', 'b', 'c'), (78, NULL, '', 1);
CREATE TABLE no_rowid_left(rowid, _rowid_, oid, x);
INSERT INTO no_rowid_left VALUES (1, 2, 3, 'all names taken');
CREATE TABLE keyless(name TEXT PRIMARY KEY, n) WITHOUT ROWID;
INSERT INTO keyless VALUES ('b', 2), ('a', 1), ('', NULL);
CREATE TABLE composite(a INT, b INT, v, PRIMARY KEY (b DESC, a)) WITHOUT ROWID;
INSERT INTO composite VALUES (1, 2, 'x'), (2, 1, 'y');
CREATE TABLE old_quirk(id INTEGER PRIMARY KEY DESC, v);
INSERT INTO old_quirk VALUES (5, 'not the rowid'), (3, 'really');
CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
INSERT INTO counted VALUES (1, 'a'), (500, 'b');
DELETE FROM counted WHERE id = 500;
CREATE TABLE never_filled(id INTEGER PRIMARY KEY AUTOINCREMENT);
CREATE TABLE strictly(i INT, r REAL, t TEXT, b BLOB, a ANY) STRICT;
INSERT INTO strictly VALUES (1, 2.5, 'x', x'01', x'02'), (NULL, NULL, NULL, NULL, '3');
CREATE TABLE computed(id INTEGER PRIMARY KEY, net REAL, gross REAL AS (net * 1.2) STORED, label TEXT AS ('#' || id), note TEXT DEFAULT 'n');
INSERT INTO computed(id, net) VALUES (1, 10), (2, 0.1);
CREATE TABLE computed_keyless(a TEXT PRIMARY KEY, b AS (a || '!') VIRTUAL, c) WITHOUT ROWID;
INSERT INTO computed_keyless(a, c) VALUES ('k', 1);
CREATE TABLE "odd ""name"" with 'quotes', (brackets) and 🎁"("select" INTEGER, "a b" TEXT, "x""y", "VALUES(" TEXT);
INSERT INTO "odd ""name"" with 'quotes', (brackets) and 🎁" VALUES (1, 'VALUES(', ') VALUES(', ');');
CREATE TABLE [VALUES(](a); INSERT INTO [VALUES(] VALUES (1), (2);
CREATE TABLE parent(id INTEGER PRIMARY KEY);
CREATE TABLE child(id INTEGER PRIMARY KEY, parent REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED);
INSERT INTO child VALUES (1, NULL), (2, 99);
CREATE TABLE empty_table(a, b);
CREATE TABLE dates(d DATE, t DATETIME, b BOOLEAN, dec DECIMAL(10, 2));
INSERT INTO dates VALUES ('2026-02-29', '0000-00-00 00:00:00', 'true', '1.10'), (2460000.5, 0, 1, 1.1);
CREATE VIRTUAL TABLE search USING fts5(title, body, tokenize = 'porter');
INSERT INTO search(rowid, title, body) VALUES (10, 'Golden ring', 'a ring of gold'), (20, 'It''s', 'quoted');
CREATE VIRTUAL TABLE old_search USING fts4(body);
INSERT INTO old_search VALUES ('words to find');
CREATE VIRTUAL TABLE places USING rtree(id, x0, x1, y0, y1);
INSERT INTO places VALUES (1, 0.5, 1.5, -2, 2);
CREATE UNIQUE INDEX values_unique ON "values"(c) WHERE c > 5;
CREATE INDEX values_expression ON "values"(length(a), b COLLATE NOCASE DESC);
CREATE INDEX "odd index 🎁" ON "odd ""name"" with 'quotes', (brackets) and 🎁"("a b");
ANALYZE;
CREATE TABLE after_analyze(x); INSERT INTO after_analyze VALUES (1);
CREATE TABLE log(what);
CREATE TRIGGER log_insert AFTER INSERT ON parent BEGIN INSERT INTO log VALUES ('inserted; ' || new.id); END;
CREATE VIEW both(id, what) AS SELECT id, 'a;b' FROM parent UNION ALL SELECT rowid, what FROM log -- trailing
;
CREATE TRIGGER view_insert INSTEAD OF INSERT ON both BEGIN SELECT 1; END;
PRAGMA user_version = -7;
PRAGMA application_id = 305419896;
