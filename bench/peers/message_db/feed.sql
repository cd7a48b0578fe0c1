-- cursor: global_position
SELECT * FROM message_store.get_category_messages('order0', $1 + 1, 1000)
