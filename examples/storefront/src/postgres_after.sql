SELECT setval(pg_get_serial_sequence('customers', 'id'), (SELECT max(id) FROM customers));
SELECT setval(pg_get_serial_sequence('products', 'id'), (SELECT max(id) FROM products));
SELECT setval(pg_get_serial_sequence('variants', 'id'), (SELECT max(id) FROM variants));
SELECT setval(pg_get_serial_sequence('orders', 'id'), (SELECT max(id) FROM orders));
SELECT setval(pg_get_serial_sequence('carts', 'id'), (SELECT max(id) FROM carts));
CREATE UNIQUE INDEX customers_email ON customers (lower(email));
CREATE INDEX customers_name ON customers (lower(name));
CREATE INDEX addresses_customer ON addresses (customer_id);
CREATE INDEX products_search ON products USING gin (search);
CREATE INDEX variants_product ON variants (product_id);
CREATE INDEX variants_low ON variants (product_id, stock) WHERE stock < low_stock_threshold;
CREATE INDEX orders_customer ON orders (customer_id, placed_at DESC) INCLUDE (status);
CREATE INDEX orders_open ON orders (placed_at) WHERE status IN ('pending', 'paid');
CREATE INDEX order_items_order ON order_items (order_id);
CREATE INDEX payments_order ON payments (order_id);
CREATE INDEX payments_reference ON payments (gateway, reference);
CREATE INDEX email_log_sent ON email_log (sent_at);
CREATE INDEX sessions_used ON sessions (last_used_at);
CREATE FUNCTION touch_cart() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE carts SET updated_at = now() WHERE id = new.cart_id;
  RETURN new;
END;
$$;
CREATE TRIGGER cart_touched AFTER INSERT OR UPDATE ON cart_items FOR EACH ROW EXECUTE FUNCTION touch_cart();
CREATE FUNCTION order_total(bigint) RETURNS numeric LANGUAGE sql STABLE
BEGIN ATOMIC
  SELECT COALESCE(sum(quantity * unit_price), 0) FROM order_items WHERE order_id = $1;
END;
CREATE VIEW order_totals AS
  SELECT o.id, o.number, o.shipping + coalesce(sum(i.quantity * i.unit_price), 0) AS total
  FROM orders o LEFT JOIN order_items i ON i.order_id = o.id GROUP BY o.id;
CREATE VIEW low_stock AS
  SELECT v.sku, p.title, v.option, v.stock FROM variants v JOIN products p ON p.id = v.product_id WHERE v.is_low;
CREATE MATERIALIZED VIEW sales_by_day AS
  SELECT date_trunc('day', placed_at AT TIME ZONE 'UTC') AS day, count(*) AS orders, sum(shipping) AS shipping
  FROM orders GROUP BY 1;
CREATE UNIQUE INDEX sales_by_day_day ON sales_by_day (day);
COMMENT ON TABLE orders IS 'Every order; it''s kept for ten years; nobody deletes here';
ANALYZE;
