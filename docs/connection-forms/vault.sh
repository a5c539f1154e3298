vault kv put secret/connections/coveo_default \
    conn_type=coveo \
    login=myorganizationg8tp8wu3 \
    password="$COVEO_API_KEY" \
    extra='{"region": "eu", "timeout": "10,120"}'
