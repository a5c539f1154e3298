airflow connections add coveo_default \
    --conn-type coveo \
    --conn-login myorganizationg8tp8wu3 \
    --conn-password "$COVEO_API_KEY" \
    --conn-extra '{"region": "eu", "timeout": "10,120"}'
