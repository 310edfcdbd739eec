SET NAMES utf8mb4;
SET sql_mode = '';
CREATE TABLE numbers (
  id int NOT NULL AUTO_INCREMENT PRIMARY KEY,
  t tinyint, tu tinyint unsigned, s smallint, m mediumint, i int, iu int unsigned zerofill, b bigint, bu bigint unsigned,
  d decimal(65,30), d0 decimal(10,0), f float, f2 float(7,3), db double, bit1 bit(1), bit9 bit(9), bit64 bit(64), y year, bo boolean
) ENGINE=InnoDB;
INSERT INTO numbers (t, tu, s, m, i, iu, b, bu, d, d0, f, f2, db, bit1, bit9, bit64, y, bo) VALUES
  (-128, 0, -32768, -8388608, -2147483648, 0, -9223372036854775808, 0, -99999999999999999999999999999999999.999999999999999999999999999999, -9999999999, -3.402823466e38, -9999.999, -1.7976931348623157e308, b'0', b'0', b'0', 1901, 0),
  (127, 255, 32767, 8388607, 2147483647, 4294967295, 9223372036854775807, 18446744073709551615, 0.000000000000000000000000000001, 0, 16777215, 0.001, 5e-324, b'1', b'111111111', b'1111111111111111111111111111111111111111111111111111111111111111', 2155, 1),
  (0, 1, 0, 0, 0, 1, 0, 1, 1.5, 1, 1.17549435e-38, 1.5, 2.2250738585072014e-308, b'1', b'100000001', b'1000000000000000000000000000000000000000000000000000000000000001', 0, 1),
  (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0.1, NULL, 0.1, NULL, NULL, NULL, NULL, NULL),
  (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, -0.0, NULL, -0.0, NULL, NULL, NULL, 0000, NULL);
INSERT INTO numbers (f, f2, db) VALUES (-0e0, -0e0, -0e0);
INSERT INTO numbers (f, db) WITH RECURSIVE s (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM s WHERE seq < 500) SELECT rand(7) * pow(10, seq % 60 - 30), rand(8) * pow(10, seq % 500 - 250) FROM s;
CREATE TABLE texts (
  id int PRIMARY KEY, c char(10), v varchar(200), vb varbinary(300), bi binary(8), tt tinytext, tx text, mt mediumtext, lt longtext,
  tb tinyblob, bl blob, mb mediumblob, lb longblob, e enum('a','b''c','d,e',''), st set('x','y','z'), j json,
  l1 varchar(50) CHARACTER SET latin1, u2 varchar(50) CHARACTER SET ucs2, sj varchar(50) CHARACTER SET sjis, a varchar(50) CHARACTER SET ascii
) ENGINE=InnoDB CHARSET=utf8mb4;
INSERT INTO texts (id, c, v, vb, bi, tx, bl, e, st, j, l1, u2, sj, a) VALUES
  (1, 'trail   ', 'quote '' double " back \\ slash \\n not a break', X'00FF0A0D27225C1A', X'0102', 'line\nbreak\r\nreturn\ttab\0nul\Z end', X'', 'b''c', 'x,z', '{"a": [1, 2.50, "ü\\n"]}', 'ÄÖÜ€', 'žluťoučký', 'テスト', 'plain'),
  (2, '', '', '', '', '', '', '', '', '[]', '', '', '', ''),
  (3, NULL, '👩‍👩‍👧‍👦 emoji 𝔘𝔫𝔦', NULL, NULL, '-- not a comment; DELIMITER $$', X'2D2D2063617265', NULL, NULL, 'null', NULL, NULL, NULL, NULL),
  (4, 'x', REPEAT('é', 200), REPEAT(X'FF', 300), X'FFFFFFFFFFFFFFFF', REPEAT('long ', 12000), REPEAT(X'0A', 60000), 'zzz', 'x,y,z', '{}', '', '', '', '');
UPDATE texts SET lb = REPEAT(X'00010203FEFF', 300000), lt = REPEAT('zeile\n', 300000) WHERE id = 1;
CREATE TABLE times (id int PRIMARY KEY, d date, t time(6), dt datetime, dt6 datetime(6), ts timestamp NULL, ts6 timestamp(6) NULL DEFAULT NULL) ENGINE=InnoDB;
SET time_zone = '+05:30';
INSERT INTO times VALUES (1, '0000-00-00', '-838:59:59.999999', '0000-00-00 00:00:00', '9999-12-31 23:59:59.999999', '1970-01-01 05:30:01', '2038-01-19 08:44:07.999999'),
  (2, '2026-02-00', '838:59:59', '2026-00-00 00:00:00', '1000-01-01 00:00:00.000001', 0, 0), (3, NULL, NULL, NULL, NULL, NULL, NULL);
SET time_zone = '+00:00';
CREATE TABLE shapes (id int PRIMARY KEY, g geometry NOT NULL, p point, s polygon NOT NULL SRID 4326, SPATIAL KEY shapes_s (s)) ENGINE=InnoDB;
SET @s = ST_GeomFromText('POLYGON((0 0,0 5,5 5,5 0,0 0))', 4326); INSERT INTO shapes VALUES (1, @s, POINT(0.1, -1e300), @s), (2, ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1))'), NULL, @s);
CREATE TABLE `generated` (
  a int, v int AS (a * 2) VIRTUAL, s varchar(20) AS (concat('n', a)) STORED, hidden int INVISIBLE DEFAULT 7, KEY generated_v (v), UNIQUE KEY generated_s (s)
) ENGINE=InnoDB;
INSERT INTO `generated` (a, hidden) VALUES (1, 1), (2, 2), (NULL, 3);
CREATE TABLE vectors (id int PRIMARY KEY, v vector(3), d json, KEY vectors_upper ((upper(cast(d->>'$.name' AS char(20))))), KEY vectors_tags ((cast(d->'$.tags' AS unsigned array)))) ENGINE=InnoDB;
INSERT INTO vectors VALUES (1, string_to_vector('[1.5, -0.1, 3e38]'), '{"name": "ü", "tags": [1, 2, 3], "big": 18446744073709551615, "f": 1e-7}'), (2, NULL, NULL), (3, NULL, '{"tags": []}');
CREATE TABLE invisible_key (my_row_id bigint unsigned NOT NULL AUTO_INCREMENT INVISIBLE PRIMARY KEY, x int, y int DEFAULT (x * 2), KEY hidden (x) INVISIBLE) ENGINE=InnoDB ROW_FORMAT=COMPRESSED COMMENT='it''s; odd';
INSERT INTO invisible_key (x) VALUES (7), (8);
CREATE TABLE no_key (a int, b varchar(10)) ENGINE=InnoDB;
INSERT INTO no_key VALUES (3, 'c'), (1, 'a'), (2, 'b'), (1, 'a');
CREATE TABLE composite (a varchar(20) COLLATE utf8mb4_bin, b int, c int, PRIMARY KEY (a, b), KEY composite_c (c DESC)) ENGINE=InnoDB CHARSET=utf8mb4;
INSERT INTO composite VALUES ('b', 2, 1), ('B', 1, 2), ('a', 9, 3);
CREATE TABLE `odd ``name; -- x` (`a b` int, `sel``ect` int, `ü` int PRIMARY KEY, `x\y` int) ENGINE=InnoDB;
INSERT INTO `odd ``name; -- x` VALUES (1, 2, 3, 4);
CREATE TABLE my (id int AUTO_INCREMENT, t text, KEY my_id (id), FULLTEXT KEY my_t (t)) ENGINE=MyISAM;
INSERT INTO my VALUES (5, 'five'), (3, 'three'), (4, 'four');
CREATE TABLE second_counter (a int NOT NULL, n int NOT NULL AUTO_INCREMENT, PRIMARY KEY (a), KEY n (n)) ENGINE=InnoDB AUTO_INCREMENT=500;
INSERT INTO second_counter (a) VALUES (9), (8);
CREATE TABLE zero_id (id int NOT NULL AUTO_INCREMENT PRIMARY KEY, x int) ENGINE=InnoDB;
SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO';
INSERT INTO zero_id VALUES (0, 1), (-5, 2), (7, 3);
SET sql_mode = '';
CREATE TABLE parts (id int, d date, PRIMARY KEY (id, d)) ENGINE=InnoDB PARTITION BY HASH (id) PARTITIONS 3;
INSERT INTO parts WITH RECURSIVE s (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM s WHERE seq < 50) SELECT seq, '2026-01-01' + INTERVAL seq DAY FROM s;
CREATE TABLE parent (id int PRIMARY KEY, other int, KEY parent_other (other)) ENGINE=InnoDB;
CREATE TABLE child (id int PRIMARY KEY, p int, q int, KEY child_q (q), CONSTRAINT child_p FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE ON UPDATE SET NULL,
  CONSTRAINT child_self FOREIGN KEY (q) REFERENCES child (id)) ENGINE=InnoDB;
ALTER TABLE parent ADD CONSTRAINT parent_child FOREIGN KEY (other) REFERENCES child (id);
SET foreign_key_checks = 0;
INSERT INTO parent VALUES (1, 10), (2, NULL); INSERT INTO child VALUES (10, 1, 11), (11, 2, 10);
-- What grown shops have: a reference that leads nowhere.
INSERT INTO child VALUES (12, 99, NULL);
SET foreign_key_checks = 1;
CREATE TABLE checked (a int CHECK (a > 0) NOT ENFORCED, b varchar(5) DEFAULT (concat('x', 'y')), c timestamp DEFAULT current_timestamp ON UPDATE current_timestamp) ENGINE=InnoDB;
INSERT INTO checked VALUES (-1, 'ab', '2026-01-01 00:00:00');
CREATE VIEW b_first AS SELECT 1 AS one;
CREATE VIEW a_needs_b AS SELECT one + 1 AS two FROM b_first;
CREATE ALGORITHM=MERGE DEFINER=`nobody`@`nowhere` SQL SECURITY INVOKER VIEW with_check AS SELECT id, other FROM parent WHERE id > 0 WITH CASCADED CHECK OPTION;
DELIMITER ;;
CREATE DEFINER=`root`@`localhost` FUNCTION shout(t varchar(50)) RETURNS varchar(60) CHARSET utf8mb4 DETERMINISTIC BEGIN
  -- a comment; with a semicolon
  RETURN concat(upper(t), '!;');
END;;
SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT';;
CREATE PROCEDURE "odd proc"(INOUT x int) COMMENT 'it''s odd' BEGIN DECLARE y text DEFAULT 'a' || 'b'; SET x = x + 1; END;;
SET sql_mode = '';;
CREATE TRIGGER first_of_two BEFORE INSERT ON no_key FOR EACH ROW BEGIN SET new.a = new.a + 100; END;;
CREATE TRIGGER second_of_two BEFORE INSERT ON no_key FOR EACH ROW FOLLOWS first_of_two SET new.b = 'trig';;
CREATE TRIGGER zeroth BEFORE INSERT ON no_key FOR EACH ROW PRECEDES first_of_two SET new.b = upper(new.b);;
SET time_zone = 'SYSTEM';;
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 02:00:00' ON COMPLETION PRESERVE DISABLE COMMENT 'clean; up' DO BEGIN DELETE FROM no_key WHERE a < 0; END;;
DELIMITER ;
CREATE TABLE empty_table (id int PRIMARY KEY) ENGINE=InnoDB;
